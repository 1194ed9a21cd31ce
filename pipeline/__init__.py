"""What happens to a callback, in order: receive, jobs, artifacts, follow-ups, reconcile."""
