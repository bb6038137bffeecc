"""A worker that runs nothing: it does with an actor's creation what the task's name says. See `test_head_actors`."""

import os

import msgspec

from miniray.messages import control, tasks
from miniray.messages.objects import KIND_ERROR, Payload
from miniray.processes.worker_config import WorkerConfig
from miniray.system import lifeline
from miniray.system.sockets import ZmqTransport


def main(payload):
    """The names: ok, raise, hang, crash, crash-once, exit_actor. A call by one of the last names does so later."""
    config = msgspec.msgpack.decode(payload, type=WorkerConfig)
    line = lifeline.connect(config.lifeline, config.worker_id, config.token)
    transport = ZmqTransport(
        config.worker_id,
        config.socket_dir or None,
        f"w{os.getpid()}",
        kind="worker",
        version=config.version,
        token=config.token,
    )
    lifeline.LifelineWatcher(line, lambda: os._exit(1))
    transport.epoch = config.epoch
    transport.send(config.head, [control.RegisterWorker(transport.address, os.getpid(), config.node_id)])

    def leave(reason):
        transport.close(reason)  # says Goodbye, and stays until that is out
        os._exit(0)

    while True:
        envelope = transport.receive(60)
        for message in envelope.messages if envelope is not None else ():
            if isinstance(message, control.Exit):
                leave(message.reason)
            elif isinstance(message, control.ExitActor):
                if message.reason and not os.path.exists(os.path.join(config.session_dir, "stubborn")):
                    leave(message.reason)
            elif isinstance(message, tasks.TaskPush):
                if message.name == "crash" or (message.name == "crash-once" and message.attempt == 0):
                    os._exit(1)
                elif message.name == "exit_actor":
                    leave("exit_actor() was called")
                elif message.name == "raise":
                    error = Payload(KIND_ERROR, b"the error")
                    transport.send(config.head, [tasks.TaskReply(message.task_id, tasks.FAILED, [error], 0.0)])
                elif message.name != "hang":
                    returns = [Payload(0, message.options)]
                    transport.send(config.head, [tasks.TaskReply(message.task_id, tasks.FINISHED, returns, 0.0)])
