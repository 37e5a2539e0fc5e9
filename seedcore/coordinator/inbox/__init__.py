"""The durable inbox: a task is on disk before it is accepted, and is done or waits for a person.

The Coordinator imports this package only if the deployment asks for an inbox (``SEEDCORE_INBOX``). The layers, each of
which imports only those above it::

    decisions   what becomes of a task: pure functions of (standing, event, time)
    planning    which moments of a schedule are planned: pure as well
    messages    what the event loop and the writer thread hand to each other
    place       the directory, its file system and its lock
    schema      the tables
    schedules   the schedules in the store, and the tasks that they plan
    store       one transaction for all that came up in a turn; ``sqlite`` and ``postgres``
                are its databases, and ``stores`` chooses one
    writer      the thread that calls the store
    pump        gathers what comes up, and tells the results once they are on disk
    floor       gives tasks to the processes of organs, and finds out what became of each
    session     one epoch: pump, floor, adoption, and whoever waits for a task
    inbox       opens sessions, and answers the Coordinator; ``wish``, ``documents`` and ``health`` help it
"""
