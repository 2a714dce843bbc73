"""Approvals: a person with a role says that a session may go on which its policy held for that."""

from collections.abc import Callable, Sequence

from atoll.errors import Conflict, Forbidden
from atoll.judge import roles
from atoll.policy import ADMIN, grant, granted
from atoll.session import Session
from atoll.states import WAITING, Reason, SessionState
from federation.control.changes import Changes
from federation.control.policies import Policies
from federation.control.sessions import find


class Approvals:
    """The use case of approving a session."""

    def __init__(self, changes: Changes, policies: Policies, on_change: Callable[[], None]) -> None:
        self._changes = changes
        self._policies = policies
        self._on_change = on_change

    async def approve(self, project: str, ref: str, *, by: str, has: Sequence[str], role: str = "") -> Session:
        """Approve a waiting session as `role`, one of the roles that `by` has; an administrator has all.

        Without a `role`, as each of theirs that the session's policies know. A held session goes back to the queue.
        Raises `Forbidden` for a role that `by` does not have, `Conflict` for a session that needs no approval.
        """
        policies = (await self._policies.active()).policies
        async with self._changes.commit("session.approve") as change:
            row = await find(change, project, ref)
            known = roles(policies, row.project)
            if row.state not in WAITING or not known:
                raise Conflict(f"session {row.name} is {row.state} and needs no approval", hint=row.message)
            asked = [role] if role else [each for each in known if ADMIN in has or each in has]
            if not asked or (ADMIN not in has and asked[0] not in has):
                raise Forbidden(
                    f"{by} does not have the role {role or ' or '.join(known)}",
                    hint=f"somebody who has it can: atoll approve {row.name} --as {role or known[0]}",
                )
            if role and role not in known:
                raise Conflict(f"no policy asks for the approval of a {role}", hint=f"roles: {', '.join(known)}")
            new = [each for each in asked if each not in granted(row.approved_by)]
            if not new:
                return row
            approved_by = row.approved_by
            for each in new:
                approved_by = grant(approved_by, each, by)
            text = f"approved by {by} as {', '.join(new)}"
            to = SessionState.QUEUED if row.state is SessionState.HELD else row.state
            row = await change.session(row, to, Reason.APPROVED, text, approved_by=approved_by)
        self._on_change()
        return row
