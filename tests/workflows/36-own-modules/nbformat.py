WHOSE = "the workflow"
