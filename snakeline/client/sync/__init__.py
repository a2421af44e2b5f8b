"""The synchronous client.

Made from `aio/__init__.py` by `python -m tests.support.sync_client`: change that.
"""
