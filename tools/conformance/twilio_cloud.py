"""The part of Twilio that acts: calls that its REST API places and changes, TwiML that it runs, webhooks that it signs.

Owns calls and what becomes of those who are called (the test says it). It speaks HTTP on a real socket like
api.twilio.com (`/2010-04-01/Accounts/{Sid}/Calls.json`, `.../Calls/{CallSid}.json`), and runs `<Connect><Stream>`,
`<Dial>` and `<Hangup>`. Sources: Twilio, "Call resource", "TwiML Voice: <Dial>", "Status callbacks".
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from twilio.request_validator import RequestValidator

from tools.conformance.kit import PATIENCE_S
from tools.conformance.twilio import TwilioCall, TwiML, connected, sid


@dataclass
class CloudCall:
    """One call at Twilio. history: what became of it, in order. streams: those that were opened for it, in order.
    dialled: whom a <Dial> called. ended: it is over.
    """

    sid: str
    to: str
    caller: str
    history: list[str] = field(default_factory=list)
    streams: list[TwilioCall] = field(default_factory=list)
    dialled: list[str] = field(default_factory=list)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    told_url: str = ""
    told_events: tuple[str, ...] = ()
    _runs: asyncio.Task[None] | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self, number: int = 0) -> TwilioCall:
        """Wait for its n-th stream."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.streams) <= number:
                self._news.clear()
                await self._news.wait()
        return self.streams[number]


class TwilioCloud:
    """Made by `twilio_cloud`. outcomes: by whom is called: `answered`, `busy`, `no-answer`, `failed`; for calls that
    the REST API places, and for <Dial>. talks_s: how long whom a <Dial> reached talks. faults: broken rules.
    """

    def __init__(self, account_sid: str, auth_token: str) -> None:
        self.account_sid, self._auth_token = account_sid, auth_token
        self.outcomes: dict[str, str] = {}
        self.talks_s = 0.2
        self.ring = asyncio.Event()
        """Who is called answers, or does not, when this is set."""
        self.ring.set()
        self.take = asyncio.Event()
        """Orders for calls are taken when this is set; until then they are on their way."""
        self.take.set()
        self.ordered = asyncio.Event()
        self.calls: dict[str, CloudCall] = {}
        self.faults: list[str] = []
        self.url = ""
        self.placed: asyncio.Queue[CloudCall] = asyncio.Queue()
        self._client: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def call_in(self, webhook_url: str, to: str, caller: str) -> CloudCall:
        """Somebody calls a number of the account: its webhook is asked, and what it answers is run."""
        call = self._new(to, caller)
        self._run(call, await self._ask(webhook_url, call, {"CallStatus": "ringing"}))
        return call

    async def hang_up(self, call: CloudCall) -> None:
        """The caller hangs up."""
        await self._end(call, "completed")

    # --- the REST API -------------------------------------------------------------------------------------------------

    def routes(self) -> list[web.RouteDef]:
        base = "/2010-04-01/Accounts/{account}/Calls"
        return [web.post(base + ".json", self._create), web.post(base + "/{call}.json", self._update)]

    async def _create(self, request: web.Request) -> web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        form = await request.post()
        if not form.get("To") or not form.get("From") or not form.get("Twiml"):
            return web.json_response({"code": 21201, "message": "No 'To' number is specified"}, status=400)
        self.ordered.set()
        await self.take.wait()
        call = self._new(str(form["To"]), str(form["From"]))
        call.told_url = str(form.get("StatusCallback", ""))
        call.told_events = tuple(map(str, form.getall("StatusCallbackEvent", [])))
        self._start(self._place(call, str(form["Twiml"])))
        self.placed.put_nowait(call)
        return web.json_response({"sid": call.sid, "status": "queued", "account_sid": self.account_sid}, status=201)

    async def _update(self, request: web.Request) -> web.Response:
        if (refused := self._refused(request)) is not None:
            return refused
        call, form = self.calls.get(request.match_info["call"]), await request.post()
        if call is None:
            return web.json_response({"code": 20404, "message": "not found"}, status=404)
        if call.ended.is_set():
            return web.json_response({"code": 21220, "message": "Call is not in-progress"}, status=400)
        if form.get("Status") in ("completed", "canceled"):
            await self._end(call, str(form["Status"]))
        elif form.get("Twiml"):
            await self._leave(call)
            self._run(call, str(form["Twiml"]))
        return web.json_response({"sid": call.sid, "status": "in-progress"})

    def _refused(self, request: web.Request) -> web.Response | None:
        login = base64.b64encode(f"{self.account_sid}:{self._auth_token}".encode()).decode()
        if (
            request.headers.get("Authorization") == f"Basic {login}"
            and request.match_info["account"] == self.account_sid
        ):
            return None
        return web.json_response({"code": 20003, "message": "Authenticate"}, status=401)

    # --- what calls do ------------------------------------------------------------------------------------------------

    def _new(self, to: str, caller: str) -> CloudCall:
        call = CloudCall(sid("CA"), to, caller)
        self.calls[call.sid] = call
        return call

    async def _place(self, call: CloudCall, twiml: str) -> None:
        await self._tell(call, "ringing", "ringing")
        await self.ring.wait()
        outcome = self.outcomes.get(call.to, "answered")
        if call.ended.is_set():
            return
        if outcome != "answered":
            await self._end(call, outcome)
            return
        await self._tell(call, "answered", "in-progress")
        self._run(call, twiml)

    def _run(self, call: CloudCall, twiml: str) -> None:
        call._runs = self._start(self._do(call, twiml))

    async def _do(self, call: CloudCall, text: str) -> None:
        try:
            root = ET.fromstring(text)
        except ET.ParseError:
            self.faults.append(f"no TwiML: {text[:100]}")
            await self._end(call, "failed")
            return
        for verb in root:
            if verb.tag == "Connect":
                await self._connect(call, text)
            elif verb.tag == "Dial":
                after = await self._dial(call, verb)
                if after:
                    self._run(call, after)
                    return
            elif verb.tag == "Hangup":
                break
            else:
                self.faults.append(f"<{verb.tag}> is no verb that is known here")
        await self._end(call, "completed")

    async def _connect(self, call: CloudCall, text: str) -> None:
        assert self._client is not None
        twiml = TwiML.parse(text)
        async with connected(self._client, twiml, self.account_sid, call_sid=call.sid) as stream:
            call.streams.append(stream)
            call._news.set()
            try:
                await stream.ended(600)
            except asyncio.CancelledError:
                with contextlib.suppress(ConnectionError):
                    await stream.say("stop", stop={"accountSid": self.account_sid, "callSid": call.sid})
                raise

    async def _dial(self, call: CloudCall, verb: ET.Element) -> str:
        """The TwiML that the action answers."""
        (noun,) = verb
        to = (noun.text or "").strip()
        call.dialled.append(to)
        told, events = noun.get("statusCallback", ""), noun.get("statusCallbackEvent", "").split()
        await self.ring.wait()
        outcome = self.outcomes.get(to, "answered")
        if outcome == "answered":
            if told and "answered" in events:
                await self._ask(told, call, {"CallStatus": "in-progress", "ParentCallSid": call.sid})
            await asyncio.sleep(self.talks_s)
            outcome = "completed"
        action = verb.get("action", "")
        return await self._ask(action, call, {"CallStatus": "in-progress", "DialCallStatus": outcome}) if action else ""

    async def _leave(self, call: CloudCall) -> None:
        """What the call does is over."""
        if call._runs is not None and call._runs is not asyncio.current_task():
            call._runs.cancel()
            await asyncio.gather(call._runs, return_exceptions=True)

    async def _end(self, call: CloudCall, status: str) -> None:
        if call.ended.is_set():
            return
        call.ended.set()
        await self._leave(call)
        await self._tell(call, "completed", status)

    async def _tell(self, call: CloudCall, event: str, status: str) -> None:
        call.history.append(status)
        if call.told_url and event in call.told_events:
            await self._ask(call.told_url, call, {"CallStatus": status})

    async def _ask(self, url: str, call: CloudCall, fields: Mapping[str, str]) -> str:
        """A webhook, signed; what it answers."""
        assert self._client is not None
        form = {"AccountSid": self.account_sid, "CallSid": call.sid, "From": call.caller, "To": call.to, **fields}
        signature = RequestValidator(self._auth_token).compute_signature(url, form)
        async with self._client.post(url, data=form, headers={"X-Twilio-Signature": signature}) as answer:
            if answer.status >= 300:
                self.faults.append(f"{url} answered {answer.status}")
            return await answer.text()

    def _start(self, work: asyncio._CoroutineLike[None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)  # type: ignore[arg-type]
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def twilio_cloud(account_sid: str, auth_token: str, port: int = 0) -> AsyncIterator[TwilioCloud]:
    """A cloud on this machine; `url` is where its REST API is."""
    cloud = TwilioCloud(account_sid, auth_token)
    app = web.Application()
    app.add_routes(cloud.routes())
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    cloud.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession() as client:
            cloud._client = client
            yield cloud
            await cloud.close()
    finally:
        await cloud.close()
        await runner.cleanup()
