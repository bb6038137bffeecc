"""The envelope around everything that crosses a socket, and the one list of all messages.

A wire frame is the msgpack form of one `Envelope`; over TCP the session token stands before it. Batches are the rule:
whatever piled up for a peer while it was busy goes out in one envelope.
"""

from __future__ import annotations

from typing import Union

from msgspec import Struct

from miniray.messages import control, objects, placement, reconnect, state, tasks

Message = Union[
    objects.GetObjects,
    objects.ObjectReady,
    objects.AddBorrowers,
    objects.BorrowersAdded,
    objects.RemoveBorrowers,
    objects.FreeSegments,
    objects.SegmentsOrphaned,
    objects.ReportLost,
    objects.FreeObjects,
    tasks.FunctionExport,
    tasks.TaskPush,
    tasks.TaskReply,
    tasks.StealTasks,
    tasks.TasksReturned,
    tasks.CancelTask,
    tasks.RequestCancel,
    tasks.ReleasePins,
    tasks.AcknowledgeReplies,
    tasks.SkipSequence,
    tasks.LogLines,
    tasks.GeneratorItem,
    tasks.GeneratorCredit,
    control.Hello,
    control.Goodbye,
    control.RegisterDriver,
    control.DriverRegistered,
    control.RegisterWorker,
    control.LeaseDemand,
    control.LeaseGranted,
    control.LeaseRefused,
    control.RevokeLease,
    control.ReturnLease,
    control.WorkerBlocked,
    control.ReserveMemory,
    control.ReleaseMemory,
    control.TrimMemory,
    control.TablePut,
    control.TableGet,
    control.TableDelete,
    control.TableScan,
    control.Query,
    control.Reply,
    control.Subscribe,
    control.Unsubscribe,
    control.Published,
    control.PublishedHandled,
    control.WatchTable,
    reconnect.Rejoin,
    reconnect.Rejoined,
    control.TableChanges,
    control.ChangesHandled,
    control.StopWatching,
    control.WorkerDied,
    control.WatchWorker,
    control.NodeDied,
    control.CollectGarbage,
    control.Exit,
    control.AddNode,
    control.RemoveNode,
    control.StopSession,
    control.Warn,
    control.CreateActor,
    control.ActorOutOfScope,
    control.KillActor,
    control.WatchActor,
    control.ActorState,
    control.ExitActor,
    state.TaskEvents,
    state.ReportState,
    state.StateReport,
    placement.CreatePlacementGroup,
    placement.RemovePlacementGroup,
    placement.WaitPlacementGroup,
]


class Envelope(Struct, array_like=True, gc=False):
    """One wire frame: who sends (worker id; the head's is its own), the head epoch it knows, and the messages in
    order.
    """

    sender: bytes
    epoch: int
    messages: list[Message]
