"""Tasks that run together: which one of a group is blamed for its failure."""

from __future__ import annotations

from runner.engines.task_groups import KNOCK_ON, OF_ITS_GROUP, OWN, TaskGroups


def blamed(groups: TaskGroups) -> list[int]:
    return [task for task in (1, 2, 3) if groups.is_blamed(task)]


def test_the_first_of_those_that_are_surest_is_blamed() -> None:
    groups = TaskGroups()
    groups.join("g", [1, 2, 3])
    assert blamed(groups) == [1, 2, 3]  # none more than another
    for task, doubt, expected in ((3, KNOCK_ON, 3), (1, OF_ITS_GROUP, 1), (2, OF_ITS_GROUP, 1), (2, OWN, 2)):
        groups.failed(task, doubt)
        assert blamed(groups) == [expected]


def test_what_failed_of_a_task_that_is_tried_again_is_nothing_to_blame() -> None:
    groups = TaskGroups()
    groups.join("g", [1, 2, 3])
    groups.failed(1, OWN)
    groups.started(2)
    assert blamed(groups) == [1]
    groups.started(1)
    groups.failed(2, OF_ITS_GROUP)
    assert blamed(groups) == [2]


def test_a_task_of_no_group_answers_for_itself() -> None:
    groups = TaskGroups()
    groups.join("", [1])
    for task in (1, 2):
        groups.failed(task, OWN)
    assert (groups.name_of(1), groups.name_of(2), blamed(groups)) == ("", None, [1, 2, 3])


def test_they_are_the_same_when_restored_without_what_is_of_no_group() -> None:
    groups = TaskGroups()
    for task in (1, 2):
        groups.join(bytes([103, 104]).decode(), [task])
    assert groups.name_of(1) is groups.name_of(2)
    groups.failed(2, OWN)
    document = groups.as_json()
    assert document == {"names": ["gh"], "tasks": [(1, 0), (2, 0)], "blamed": {"gh": (0, 2)}}
    again = TaskGroups.restored({**document, "blamed": {"gh": [0, 2], "invented": [0, 1]}})
    assert again.as_json() == document
