"""The dialplans that the benches call."""

LONG_TEXT = " ".join("This is a long announcement that goes on and on until somebody interrupts it." for _ in range(8))

ECHO = """
tenant: bench
flows:
  echo: [answer, echo]
  quick: [answer, {wait: 30}]
routes:
  - match: {to: echo}
    flow: echo
  - match: {to: quick}
    flow: quick
"""

AGENT = f"""
tenant: bench
agents:
  quiet: {{prompt: You are a short assistant., silence_s: 300, stt: [whisper], llm: {{use: local}}}}
  talker:
    prompt: You are a short assistant.
    greeting: {LONG_TEXT}
    silence_s: 300
  helper:
    prompt: >
      You answer the phone for the Garden Shop. The Garden Shop opens at nine in the morning and closes at six.
      Answer in one short sentence.
    greeting: Hello, this is the Garden Shop.
    silence_s: 300
    llm: {{use: local, max_tokens: 40}}
    turn: {{end_silence_ms: 400}}
flows:
  quiet: [answer, record, {{agent: {{use: quiet, on: {{failed: end}}}}}}]
  talker: [answer, {{agent: {{use: talker, on: {{failed: end}}}}}}]
  helper: [answer, {{agent: {{use: helper, on: {{failed: end}}}}}}]
routes:
  - match: {{to: quiet}}
    flow: quiet
  - match: {{to: talker}}
    flow: talker
  - match: {{to: helper}}
    flow: helper
"""
