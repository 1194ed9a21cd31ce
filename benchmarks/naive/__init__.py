"""Naive version of this service on the same stack: nested marshmallow schemas, one ORM object for each annotation, a commit,
`task.delay()`, and a worker that creates the follow-up."""
