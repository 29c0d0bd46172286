"""etcd's v2 keys as a pure state machine: no HTTP, no clock, nothing that waits.

A request goes through these rooms: `paths` and `forms` read it, `requests` says what it wants, `operations` decides
and applies, `views` reads, `history` says who is told, `answers` writes what goes back. `limits` admits, `codec` and
`snapshots` carry operations and the whole keyspace as documents.
"""
