"""The engine behind OpenAI's HTTP API, for any program that speaks it.

A request goes through one file after the other: `access` (who may ask), `gate` (is there room), `bodies` (bytes to
JSON), `chat_request` or `completion_request` (JSON to what is asked), `preparation` (tokens, window, grammar),
`choices` (the engine's pieces), and `chat_answer` or `completion_answer` with `events` (pieces to JSON). `generation`
leads it through, `app` has the addresses, `server` starts and stops.
"""
