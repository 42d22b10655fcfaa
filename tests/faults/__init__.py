"""Every command survives a failure at every single point: what stands afterward is all old or all new.

`shim` makes the files of a folder fail. It counts what a command does to them (each file opened, each write to it,
fsync, rename, folder made, file or folder removed) and lets the k-th of these fail, as a full disk (ENOSPC), as a
broken one (EIO), or by killing the process at that point. A test of a command needs three lines:

    command = Command(root, lambda: report.run(resolved), targets=[root / "out"])
    check_errors(command)
    check_kills(command)

The command runs once to get the new state; what it finds each time before is what ``root`` holds now, the old state.
All runs are in this process, where one that is killed changes no file any more; some are processes of their own that
are really killed. What takes long to compute, such as plots, is to be computed once before and patched in, for only the
writing is looked at. A run costs milliseconds then. Even so, points get an error or a kill in turn, renames both;
EXMED_BERT_ALL_FAULTS=1 in the environment gives both to all.

After an error: all files under ``root`` are the old ones or the new ones, byte by byte, nothing hidden is left, and
the user reads one line. After a kill: the same once a reader has looked at the targets (`swap.settle`), and the same
command then succeeds and leaves the new files and nothing else. Files that pyarrow, numpy and torch write in C are
reached by a limit on the size of files (`check_sizes`). Where a command promises something else, as pretraining does
with its checkpoints, use `run`, `Shim.points` and `content` by themselves.
"""
