"""Queries off the event loop: the embedded engine in worker threads, or a remote Prometheus-compatible API.

`local` gates concurrency, applies the timeout and keeps the query log; `remote` speaks HTTP to another
engine. Both offer the same asynchronous methods, so that the HTTP server and the rules cannot tell.
"""
