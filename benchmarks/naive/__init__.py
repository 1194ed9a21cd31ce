"""What an engineer writes in an afternoon with the same stack, fairly: nested marshmallow schemas, one ORM object for each
annotation, a commit, `task.delay()`, and a worker that creates the follow-up."""
