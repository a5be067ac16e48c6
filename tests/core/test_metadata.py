"""What a job says of itself is the same from the draft of a step and from the job that was committed."""

from __future__ import annotations

from model import World, one_graph

from hotmesh.core.advance.metadata import job_metadata


def test_a_job_and_its_draft_say_the_same() -> None:
    world = World(
        one_graph(
            """
            publishes: done
            expire: 60
            activities:
              t: {type: trigger, stats: {key: '{t.output.data.key}', granularity: 1h}}
              w: {type: worker, topic: work}
            transitions: {t: [{to: w}]}
            """
        )
    )
    generation = world.start({"key": "k"}, reply_to="me", trace_id="1" * 32, span_id="2" * 16)
    world.answer("w", {"message": "no"}, status="error")

    job = world.jobs[generation]
    told = job_metadata(job, world.plan.graphs["go"], job.updated_at)
    assert told == world.notices[-1].metadata | {"js": 0, "expire": 60.0}
    assert (told["jid"], told["tpc"], told["key"], told["ts"], told["ngn"]) == (
        "J1", "go", "k", "202402291200", "me",
    )  # fmt: skip
