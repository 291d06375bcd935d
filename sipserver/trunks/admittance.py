"""Whose requests are heard: by which trunk a call comes, who must prove himself, and what strangers learn (nothing).

Owns the judgement about a request that belongs to no dialog: its trunk by `sources`, the challenge to `users`, the pace
of a trunk, and how often strangers are refused. Refuses to know sockets and how an answer is written. Pure but for its
clocks; one thread. Memory is bounded: of addresses that were refused the last `_MOST_ADDRESSES` are kept.
"""

from __future__ import annotations

import enum
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

from sipserver.trunks.digest import DigestServer, Proof
from sipserver.trunks.settings import TrunkSettings

REFUSALS = 5
"""So often within REFUSALS_S a stranger at one address is answered; what comes beyond is dropped."""
CHALLENGES = 20
"""So often within REFUSALS_S somebody at one address who proves nothing is challenged."""
REFUSALS_S = 60.0

_MOST_ADDRESSES = 4096

Network = IPv4Network | IPv6Network
Clock = Callable[[], float]


class Verdict(enum.StrEnum):
    """CHALLENGE: 401 with `challenges`. REFUSE: 403. PACE: 503 with Retry-After. DROP: no answer at all."""

    ADMIT = "admit"
    CHALLENGE = "challenge"
    REFUSE = "refuse"
    PACE = "pace"
    DROP = "drop"


@dataclass(frozen=True, slots=True)
class Judgement:
    """trunk: by which it comes, when it may pass or is too much; empty for a source that `allow` names. stranger:
    nobody knows the source, and it has proved nothing.
    """

    verdict: Verdict
    trunk: str = ""
    challenges: tuple[str, ...] = ()
    stranger: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What must be read out of a request when somebody has to prove himself. authorization: the values of all its
    Authorization headers.
    """

    request_uri: str
    authorization: tuple[str, ...]


class Gatekeeper:
    """trunks: those that calls may come by; others are nobody's. passwords: by the name of their environment variable.
    allow: networks that may call by no trunk.
    """

    def __init__(
        self,
        trunks: Iterable[TrunkSettings],
        passwords: Mapping[str, str],
        allow: Iterable[str],
        realm: str,
        *,
        clock: Clock = time.monotonic,
        digest: DigestServer | None = None,
    ) -> None:
        self._trunks = tuple(trunk for trunk in trunks if trunk.sources or trunk.users)
        self._networks = {trunk.name: tuple(map(ip_network, trunk.sources)) for trunk in self._trunks}
        self._wide = {
            name for name, networks in self._networks.items() if any(not network.prefixlen for network in networks)
        }  # sources that are the whole world: nobody in particular
        self._users = {
            trunk.name: {user.name: passwords.get(user.password_env, "") for user in trunk.users}
            for trunk in self._trunks
        }
        self._from_anywhere = tuple(trunk for trunk in self._trunks if not trunk.sources)
        self._allow = tuple(ip_network(network) for network in allow)
        self._digest = digest or DigestServer(realm)
        self._clock = clock
        self._refusals = _Tally(clock)
        self._challenges = _Tally(clock)
        self._paces = {trunk.name: CallsPerSecond(trunk.limits.calls_per_s, clock) for trunk in self._trunks}

    def judge(self, method: str, source: str, asked: Callable[[], Asked]) -> Judgement:
        """A request from an address that belongs to no dialog. source: `host:port`. asked: called only if somebody has
        to prove himself. Never raises for what a stranger sends.
        """
        address = _address(source)
        trunk = self._by_source(address)
        if trunk is None and _within(address, self._allow):
            return Judgement(Verdict.ADMIT)
        if method != "INVITE":
            known = trunk is not None and trunk.name not in self._wide
            return Judgement(Verdict.ADMIT if known else Verdict.DROP, trunk.name if trunk is not None else "")
        candidates = (trunk,) if trunk is not None else self._from_anywhere
        if trunk is None or trunk.users:
            return self._proved(candidates, method, address, asked)
        return self._paced(trunk.name)

    def knows(self, source: str) -> bool:
        """Whether a trunk or `allow` names the address. source: `host:port`."""
        address = _address(source)
        trunk = self._by_source(address)
        return (trunk is not None and trunk.name not in self._wide) or _within(address, self._allow)

    def _by_source(self, address: str) -> TrunkSettings | None:
        return next((trunk for trunk in self._trunks if _within(address, self._networks[trunk.name])), None)

    def _proved(
        self, candidates: tuple[TrunkSettings, ...], method: str, address: str, asked: Callable[[], Asked]
    ) -> Judgement:
        if not candidates:
            return self._refused(address)
        request = asked()
        proof, owner = Proof.NOTHING, ""
        for value in request.authorization:
            proof, owner = self._look(candidates, method, request.request_uri, value)
            if proof is not Proof.NOTHING:
                break
        if proof is Proof.GOOD:
            self._challenges.forget(address)
            return self._paced(owner)
        if proof in (Proof.WRONG, Proof.REPLAYED) and self._refusals.add(address) > REFUSALS:
            return Judgement(Verdict.DROP, stranger=True)
        if self._challenges.add(address) > CHALLENGES:
            return Judgement(Verdict.DROP, stranger=True)
        challenges = self._digest.challenges(stale=proof in (Proof.STALE, Proof.REPLAYED))
        return Judgement(Verdict.CHALLENGE, challenges=challenges, stranger=True)

    def _look(self, candidates: tuple[TrunkSettings, ...], method: str, uri: str, value: str) -> tuple[Proof, str]:
        """The proof, and the trunk whose user it is."""

        def owner_of(user: str) -> str:
            return next((trunk.name for trunk in candidates if user in self._users[trunk.name]), "")

        def password_of(user: str) -> str | None:
            owner = owner_of(user)
            return self._users[owner][user] or None if owner else None

        answer = self._digest.check(value, method, uri, password_of)
        return answer.proof, owner_of(answer.user)

    def _paced(self, trunk: str) -> Judgement:
        return Judgement(Verdict.ADMIT if self._paces[trunk].take() else Verdict.PACE, trunk)

    def _refused(self, address: str) -> Judgement:
        verdict = Verdict.REFUSE if self._refusals.add(address) <= REFUSALS else Verdict.DROP
        return Judgement(verdict, stranger=True)


class CallsPerSecond:
    """At most so many within any second; 0: any number."""

    def __init__(self, most: int, clock: Clock = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._moments: list[float] = []

    def take(self) -> bool:
        if not self._most:
            return True
        now_s = self._clock()
        self._moments = [moment for moment in self._moments if now_s - moment < 1.0]
        if len(self._moments) >= self._most:
            return False
        self._moments.append(now_s)
        return True


class _Tally:
    """How often something happened with an address within the last REFUSALS_S, counted from its first time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def add(self, address: str) -> int:
        now_s = self._clock()
        began_s, count = self._counts.pop(address, (now_s, 0))
        if now_s - began_s >= REFUSALS_S:
            began_s, count = now_s, 0
        self._counts[address] = (began_s, count + 1)
        if len(self._counts) > _MOST_ADDRESSES:
            self._counts.popitem(last=False)
        return count + 1

    def forget(self, address: str) -> None:
        self._counts.pop(address, None)


def _address(source: str) -> str:
    return source.rpartition(":")[0].strip("[]")


def _within(address: str, networks: Iterable[Network]) -> bool:
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return any(parsed in network for network in networks)
