"""A job as callers and subscribers get it."""

from __future__ import annotations

from typing import Any

from hotmesh.runtime.messages import Attributes


class JobMetadata(Attributes):
    """What there is to know about a job, under the published short names; `docs/glossary.md` explains them.

    `jid`, `gid`, `tpc`, `app`, `vrs`, `aid` (of the trigger), `jc` and `ju` (created and updated, `YYYYMMDDHHMMSS.mmm`),
    `ts` (time slice) and `js` (status) are always there; the others if the job has a key, an error (JSON), somebody who
    waits for it, a trace, a parent (`px`: who does not wait), a time to be kept.
    """

    __slots__ = ()

    jid: str
    gid: str
    tpc: str
    app: str
    vrs: str
    aid: str
    jc: str
    ju: str
    ts: str
    js: int
    key: str
    err: str
    ngn: str
    trc: str
    spn: str
    pj: str
    pg: str
    pd: str
    pa: str
    px: bool
    expire: float


class JobOutput(Attributes):
    """A job as its caller gets it: `output.data`, and `output.metadata` under the published short names."""

    __slots__ = ()

    metadata: JobMetadata
    data: dict[str, Any]

    def __init__(self, metadata: dict[str, Any], data: dict[str, Any]) -> None:
        super().__init__(metadata=JobMetadata(metadata), data=data)
