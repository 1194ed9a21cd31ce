"""Scale's two environments, each with keys of its own: people work on live tasks, test tasks are answered at once."""

ENVIRONMENTS = ("live", "test")
