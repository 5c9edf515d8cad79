"""Parts of the composition root: what joins edges without being one. Only app.py imports it.

`inputs` reads the files that the configuration names, `judging` puts an engine behind the rules, `stats`
turns the client's statistics into the dashboard's words, `status` gathers facts for the status pages,
`checks` runs every check at once for the cron endpoint.
"""
