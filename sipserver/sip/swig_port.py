"""A port of the conference bridge as pjsua2 offers it: works with every PJSIP, at a multiple of the CPU.

Stands in for `native_port.NativePort` where that one cannot be used, with the same methods.
"""

from __future__ import annotations

from typing import Any

import pjsua2 as pj

from sipserver.audio.frame import FRAME_MS, RATE_HZ, SILENCE_PAYLOAD
from sipserver.sip.native_port import Jack
from sipserver.sip.pcm import PcmCopy


class SwigPort(pj.AudioMediaPort):  # type: ignore[misc]
    """Sip thread, but for the callbacks. Raises pj.Error when the bridge has no slot left."""

    def __init__(self, jack: Jack, copy: PcmCopy) -> None:
        super().__init__()
        self._jack = jack
        self._read = copy.read
        self._put = copy.outgoing().put
        pcm = pj.MediaFormatAudio()
        pcm.init(pj.PJMEDIA_FORMAT_L16, RATE_HZ, 1, FRAME_MS * 1000, 16)
        self.createPort("leg", pcm)
        self.slot = int(self.getPortId())

    def listen(self, audio: pj.AudioMedia, on: bool) -> None:
        (audio.startTransmit if on else audio.stopTransmit)(self)

    def speak(self, audio: pj.AudioMedia, on: bool) -> None:
        (self.startTransmit if on else self.stopTransmit)(audio)

    def tick(self) -> None:
        self.startTransmit(self)

    def destroy(self) -> None:
        """Before `libDestroy`."""
        pj.AudioMediaPort.__swig_destroy__(self)

    def onFrameRequested(self, frame: Any) -> None:  # noqa: N802
        frame.type = pj.PJMEDIA_FRAME_TYPE_AUDIO
        self._put(frame, self._jack.pull() or SILENCE_PAYLOAD)  # PJSIP has set the size that it wants, which is ours

    def onFrameReceived(self, frame: Any) -> None:  # noqa: N802
        self._jack.push(self._read(frame) or SILENCE_PAYLOAD)
