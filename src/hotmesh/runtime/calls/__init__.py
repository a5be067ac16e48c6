"""What callers ask of an app, beside waiting for results.

In reading order:

- `request`: what is said about a job to be started, checked, as the core wants it.
- `starting`: starts a job within a transaction of the caller's.
- `messages_for_jobs`: signals, further answers, interrupts, the end of a pending start.
- `operations`: cancels and scrubs jobs, and decides about what was given up.
- `statistics`: queries over what is counted about jobs, and signals to all that are listed under a facet.
"""
