"""Users by REST: made, listed, changed, deleted; and what an auditor reads: the audit log.

Owns that nobody gives a role above his own, or changes or deletes somebody who has one. Refuses to know passwords and
tables.
"""

from __future__ import annotations

from collections.abc import Sequence

from sipserver.api.rest import people_models as models
from sipserver.api.rest.models import aware
from sipserver.api.rest.operations import Answered, Asked, Operation
from sipserver.errors import NotAllowed
from sipserver.tenants.audit_log import AuditLog
from sipserver.tenants.keys import Scope
from sipserver.tenants.roles import Role, may_manage
from sipserver.tenants.user_book import UserBook


class UserOperations:
    """Loop thread."""

    def __init__(self, users: UserBook, log: AuditLog) -> None:
        self._users, self._audit = users, log

    def operations(self) -> Sequence[Operation]:
        read, write, one = Scope.USERS_READ, Scope.USERS_WRITE, "/users/{user}"
        return [
            Operation(
                "createUser",
                "POST",
                "/users",
                write,
                self._create,
                "Make a user",
                "Nobody gives a role above his own; an API key gives `admin` at most.",
                body=models.CreateUser,
                answer=models.User,
                status=201,
                refusals=(400,),
                deed="user.created",
                of="user",
                shows=("email", "role"),
            ),
            Operation("listUsers", "GET", "/users", read, self._list, "List users", answer=models.Users),
            Operation("getUser", "GET", one, read, self._get, "Look at a user", answer=models.User),
            Operation(
                "changeUser",
                "PATCH",
                one,
                write,
                self._change,
                "Change a name, a role or a password, disable or enable",
                "The last owner stays one. A new password, and `enabled: false`, end the user's sessions.",
                body=models.ChangeUser,
                answer=models.User,
                refusals=(400,),
                deed="user.changed",
                of="user",
                shows=("role", "enabled"),
            ),
            Operation(
                "deleteUser",
                "DELETE",
                one,
                write,
                self._delete,
                "Delete a user",
                "Not the last owner. Sessions end at once; the audit log keeps who it was.",
                status=204,
                refusals=(400,),
                deed="user.deleted",
                of="user",
            ),
            Operation(
                "listAuditEntries",
                "GET",
                "/audit",
                Scope.AUDIT_READ,
                self._list_entries,
                "Read the audit log, the newest first",
                query=models.EntriesAsked,
                answer=models.Entries,
            ),
        ]

    async def _create(self, asked: Asked) -> Answered:
        wanted: models.CreateUser = asked.body
        _may_manage(asked, wanted.role)
        user = await self._users.create(
            asked.key.tenant, wanted.email, wanted.name, wanted.role, password=wanted.password
        )
        return Answered(models.User.of(user), 201, detail={"email": user.email, "role": user.role})

    async def _list(self, asked: Asked) -> Answered:
        users = await self._users.list(asked.key.tenant)
        return Answered(models.Users(users=list(map(models.User.of, users))))

    async def _get(self, asked: Asked) -> Answered:
        return Answered(models.User.of(await self._users.get(asked.path["user"], tenant=asked.key.tenant)))

    async def _change(self, asked: Asked) -> Answered:
        wanted: models.ChangeUser = asked.body
        before = await self._users.get(asked.path["user"], tenant=asked.key.tenant)
        _may_manage(asked, before.role)
        if wanted.role is not None:
            _may_manage(asked, wanted.role)
        user = await self._users.change(
            before.id,
            tenant=before.tenant,
            name=wanted.name,
            role=wanted.role,
            enabled=wanted.enabled,
            password=wanted.password,
        )
        changed = wanted.model_dump(exclude_none=True, exclude={"password"})
        detail = {"email": user.email, **changed, **({} if wanted.password is None else {"renewed": "password"})}
        return Answered(models.User.of(user), detail=detail)

    async def _delete(self, asked: Asked) -> Answered:
        before = await self._users.get(asked.path["user"], tenant=asked.key.tenant)
        _may_manage(asked, before.role)
        user = await self._users.delete(before.id, tenant=before.tenant)
        return Answered(None, 204, detail={"email": user.email, "name": user.name, "role": user.role})

    async def _list_entries(self, asked: Asked) -> Answered:
        wanted: models.EntriesAsked = asked.query
        entries = await self._audit.newest(
            asked.key.tenant, before=wanted.before, since=aware(wanted.since), limit=wanted.limit
        )
        return Answered(models.Entries.of(entries))


def _may_manage(asked: Asked, role: Role) -> None:
    if not may_manage(asked.key.role, role):
        raise NotAllowed(f"{asked.key.called} may not make, change or delete users with the role {role}")
