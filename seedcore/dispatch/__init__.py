"""Send tasks to the processes of organs; used by the Coordinator and by clients."""
