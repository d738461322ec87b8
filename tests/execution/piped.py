"""An engine as another package would write it, from the public contract alone: workers at the other ends of pipes."""

from __future__ import annotations

import multiprocessing
import os
from multiprocessing.connection import wait

from lotto import engine


def serve(pipe, environment, set_up, arguments):
    os.environ.update(environment)
    set_up(*arguments)
    while True:
        pipe.send_bytes(engine.compute_parcel(pipe.recv_bytes()))


class Piped(engine.Engine):
    free, busy = (), {}

    def submit(self, assignment):
        parcel = assignment.parcel()
        with engine.held():
            process, pipe = self.free.pop() if self.free else self.new_worker()
            self.busy = {**self.busy, pipe: (process, assignment)}
        pipe.send_bytes(parcel)

    def new_worker(self):
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["lotto.training.loop"])
        ours, theirs = context.Pipe()
        given = theirs, dict(os.environ), *engine.initializer(self.threads)
        process = context.Process(target=serve, args=given, daemon=True)
        process.start()
        theirs.close()
        return process, ours

    def collect(self, report):
        done = []
        while self.busy and not done:
            done = wait(self.busy, timeout=0.1)
            report()
        return [self.reply(pipe) for pipe in done]

    def reply(self, pipe):
        process, assignment = self.busy[pipe]
        try:
            answer = pipe.recv_bytes()
        except EOFError:
            answer = engine.WorkerError("It has closed its pipe.")
        else:
            self.free = [*self.free, (process, pipe)]
        del self.busy[pipe]
        return assignment, answer

    def close(self):
        workers = [*self.free, *((process, pipe) for pipe, (process, _) in self.busy.items())]
        self.free, self.busy = [], {}
        for process, pipe in workers:
            process.kill()
            process.join()
            pipe.close()
