"""The long test of durable tasks: clients submit, faults strike, and every task is accounted for in the end.

Five clients submit tasks with keys of their own through the HTTP client. Meanwhile a seed draws faults: processes are
killed or stopped, the head loses all of its processes, the organism is reloaded, the database crashes. After the last
fault everything must come to rest, and :mod:`benchmarks.durable.verdict` compares three records: the answers, the rows
of the store, and what the agents have written down. ``make soak ARGS=--durable`` runs it on SQLite and on PostgreSQL.
"""
