"""What callers ask of an app, beside waiting for results.

In reading order:

- `deployment`: a version, checked and stored.
- `request`: what is said about a job to be started or stopped, checked, as the core wants it.
- `starting`: starts a job within a transaction of the caller's.
- `outbox`: what is sent to jobs, on its way: all that is ready in one transaction.
- `messages_for_jobs`: signals, further answers, interrupts, the end of a pending start.
- `job_statistics`: what is counted about jobs, and such signals, as callers ask for them.
- `operations`: cancels and scrubs jobs, and decides about what was given up.
"""
