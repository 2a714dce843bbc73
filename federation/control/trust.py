"""Whose certificate counts: issued with rising generations, and worth nothing once its agent is distrusted."""

from dataclasses import replace

from atoll.agent import Agent
from atoll.errors import Invalid
from atoll.instance import Instance
from atoll.session import MemberState, Session
from atoll.states import KEPT, PLACED, AgentState, Reason, SessionState
from federation.control.changes import Change
from federation.control.config import ControlConfig
from tunnel import wire

CLONED = (
    "two machines have its key: a certificate older than one already used was shown; "
    "on each of them: `atoll agent leave`, then join anew"
)


async def issue(change: Change, config: ControlConfig, row: Agent, csr: str) -> tuple[Agent, str]:
    """Return a new certificate for an agent's key, of a generation that none had before; raise `Invalid`."""
    if row.key and config.authority.key_of(csr) != row.key:
        raise Invalid("a certificate is renewed for the agent's own key only", hint="join anew with a new key")
    row = await change.tx.update(replace(row, generation=row.generation + 1, issued_by=config.authority.pin))
    return row, config.authority.sign_agent(
        csr, row.id, generation=row.generation, ttl_s=config.certificate_s, now=change.now
    )


async def vetted(change: Change, row: Agent | None, generation: int) -> Agent | None:
    """Return an agent that showed a certificate, distrusted if that one is a clone's.

    Who was given a certificate and never used it may show the one before: its answer was lost.
    """
    if row is None or row.state not in KEPT or generation >= row.generation_used:
        return row
    return await distrust(change, row, Reason.CLONED, CLONED)


async def distrust(change: Change, row: Agent, reason: Reason, message: str) -> Agent:
    """Make an agent's certificates worth nothing. What it runs is not known any more (I8).

    Its sessions are lost until that is safe; its machine is ended where a provider made it.
    """
    row = await change.agent(row, AgentState.REVOKED, reason, message)
    text = f"agent {row.name} was revoked; it may still run there"
    hint = f"once that machine is off or rebuilt: `atoll agent remove {row.name}`"
    for session in await change.tx.find(Session, agent=row.id, state=sorted(PLACED)):
        if any(member.agent == row.id and member.state is not MemberState.EXITED for member in session.members):
            await change.session(session, SessionState.LOST, reason, text, hint=hint)
    instance = await change.tx.get(Instance, row.instance) if row.instance else None
    if instance:
        await change.end(instance, reason, f"its agent was revoked: {message}")
    return row


def refusal(key: str, row: Agent | None) -> wire.Refuse:
    """Return what an agent that is no member (any more) is told: to end its runs and itself."""
    if row is not None and row.state is AgentState.REVOKED:
        return wire.Refuse(code=row.reason, message=f"agent {row.name} was revoked: {row.message}", final=True)
    gone = f"agent {key} does not belong to this installation (any more)"
    return wire.Refuse(code="FORBIDDEN", message=gone, final=True)
