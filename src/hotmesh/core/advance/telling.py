"""Tells those who wait for a job what has become of it: its parent, its caller, the subscribers of its graph."""

from __future__ import annotations

from hotmesh.core.advance.builder import Deliver, StepBuilder
from hotmesh.core.advance.job_draft import JobDraft
from hotmesh.core.advance.metadata import job_metadata
from hotmesh.core.state.job import Event, Parent
from hotmesh.core.state.step import Message, Notice


def tell(builder: StepBuilder, draft: JobDraft, *, interim: bool) -> None:
    """Answer the parent, the waiting caller and the subscribers with the job as it is now.

    Not after an error: they have been told how it ends, and are told once.
    """
    if draft.told:
        return
    parent = draft.parent
    if parent is not None and not parent.severed:
        _tell_parent(builder, draft, parent, interim=interim)
    if draft.reply_to is not None or draft.graph.publishes is not None:
        notice = Notice(
            draft.job_id,
            draft.reply_to,
            draft.graph.publishes,
            job_metadata(draft, draft.graph, draft.now),
            draft.data,
            interim,
            draft.base.seq + 1,
        )
        builder.notices.append(notice)


def _tell_parent(builder: StepBuilder, draft: JobDraft, parent: Parent, *, interim: bool) -> None:
    status, code, data = "success", 200, draft.data
    if draft.error is not None:
        status, code, data = "error", int(draft.error.get("code") or 500), dict(draft.error)
    elif interim:
        status, code = "pending", 202
    # An interim answer is told apart by the version it was given at; of final ones only the first counts.
    builder.interim += interim
    suffix = f":{draft.base.seq}:{builder.interim}" if interim else ""
    message_id = f"result:{draft.generation}{suffix}"
    waiting = builder.drafts.get(parent.generation)
    if waiting is not None:
        event = Event(
            "result", parent.activity_id, parent.dimension, status, code, data, message_id=message_id
        )
        builder.todo.append(Deliver(waiting, event))
        return
    if message_id in builder.sent:
        return
    builder.sent.add(message_id)
    builder.messages.append(
        Message(
            "result",
            parent.job_id,
            message_id,
            parent.generation,
            parent.activity_id,
            parent.dimension,
            status,
            code,
            data,
        )
    )
