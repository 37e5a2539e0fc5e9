"""The durable inbox: a task is on disk before it is accepted, and is done or waits for a person.

The Coordinator imports this package only if the deployment asks for an inbox (``SEEDCORE_INBOX``). The layers, each of
which imports only those above it::

    decisions   what becomes of a task: pure functions of (standing, event, time)
    messages    what the event loop and the writer thread hand to each other
    place       the directory, its file system and its lock
    schema      the tables
    store       one transaction for all that came up in a turn
    writer      the thread that calls the store
"""
