"""Whom a session's apps let in: changed by its owner, within what the installation allows, and on record."""

from dataclasses import replace

from atoll.errors import Forbidden, NotFound
from atoll.session import AppAccess, Session, SessionSpec
from atoll.states import Reason
from atoll.suggest import hint
from federation.control.changes import Changes
from federation.control.sessions import find

_WHO = {AppAccess.OWNER: "its owner", AppAccess.PROJECT: "its project", AppAccess.PUBLIC: "everyone"}


class Sharing:
    """The use case of opening and closing apps; `public` says whether there may be public ones."""

    def __init__(self, changes: Changes, *, public: bool) -> None:
        self._changes = changes
        self._public = public

    def check(self, spec: SessionSpec) -> None:
        """Raise `Forbidden` where a session asks for a public app and the installation has none."""
        for app, rule in spec.app_rules.items():
            if rule.access is AppAccess.PUBLIC and not self._public:
                raise Forbidden(
                    f"the app {app} cannot be public: this installation has no public apps",
                    hint="whoever runs it can allow them: public = true below [apps] of its configuration",
                )

    async def share(self, project: str, ref: str, app: str, access: AppAccess, *, by: str) -> Session:
        """Let `access` into an app from now on; those who may not stay are sent out.

        Raises `NotFound` for a session or app that is not there, `Forbidden` as `check` does.
        """
        async with self._changes.commit("session.share") as change:
            row = await find(change, project, ref)
            check_app(row, app)
            rule = replace(row.spec.rule(app), access=access)
            if rule == row.spec.rule(app):
                return row
            spec = replace(row.spec, app_rules=row.spec.app_rules | {app: rule})
            self.check(spec)
            row = await change.tx.update(replace(row, spec=spec))
            text = f"app {app} is open to {_WHO[access]}: said {by}"
            await change.event(
                "session", row.id, row.state, name=row.name, reason=Reason.USER, message=text, project=row.project
            )
        return row


def check_app(row: Session, app: str) -> None:
    """Raise `NotFound` where a session has no such app."""
    if app not in row.spec.apps:
        offered = ", ".join(row.spec.apps) or "none"
        raise NotFound(f"{row.name} has no app {app}", hint=hint(app, row.spec.apps, f"its apps: {offered}"))
