"""One file for each kind of receiver; each renders a notification, posts it once, and says what came of it.

Retry, order, pauses and fallback are the outbox's. A receiver never puts a secret into an error.
"""
