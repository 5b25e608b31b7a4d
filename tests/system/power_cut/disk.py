"""A model of a disk: what a power cut may leave of the changes in a recording.

Owns the files and folders of a recording as they are durable, and every change since that is not. Never decides what
is correct: it writes a folder that a power cut could have left, and others look at it. The invariant: what a sync
covers is in every folder that `cut` writes.

Content of a file, under both assumptions below:
- fsync and fdatasync of the file make its data and its size durable.
- The disk keeps the blocks of 512 or 4,096 bytes of a write independently. A block holds what it held after some
  prefix of the writes to it: the page cache has one copy of a block, so an older write is never kept without a newer
  one that the cache still lacks, and blocks between two kept ones may be old, or zeros where the file was shorter.
- The size changes independently of the data: a file may be as long as it was after any of its changes.

Names in folders:
- "ordered", as ext4, XFS and Btrfs do: one journal for all changes of names. The disk keeps a prefix of the changes. A
  sync of a file or folder commits the journal up to the last change of names that concerns it, so fsync of a new file
  makes its name durable. fdatasync commits the creation of the file, not its renaming.
- "unordered", all that POSIX promises: only fsync of a folder makes the names in it durable. The disk keeps any subset
  of the changes since, one by one. A folder whose own name is lost is lost with everything in it.
"""

import os
import stat

ORDERED, UNORDERED = "ordered", "unordered"
# What happened to the changes of a file since its last sync, with weights: the disk has none, all, those up to some
# byte, some in each block, or all but in one block, which may be the one in which a change begins.
FATES = {"dropped": 2, "kept": 2, "torn": 3, "scattered": 3, "holed": 4}


class Change:
    """A change of names in one folder: removes a name, adds a name, or both (a rename)."""

    def __init__(self, folder, old, new, node):
        self.folder, self.old, self.new, self.node = folder, old, new, node

    def apply(self, names):
        if self.old is not None:
            names.pop(self.old, None)
        if self.new is not None:
            names[self.new] = self.node


class Node:
    """What files and folders share: the changes of names that concern them, as positions in the journal."""

    def __init__(self):
        self.created_at = self.changed_at = 0


class Folder(Node):
    def __init__(self):
        super().__init__()
        self.live = {}
        self.committed = {}  # under "ordered"
        self.synced = {}  # under "unordered"
        self.pending = []  # the changes after `synced`


class Socket(Node):
    """The name of a socket: no content, and no listener after a power cut."""


class File(Node):
    """Content without the zeros at its end, and the changes since the last sync: (position, data) or (size, None)."""

    def __init__(self):
        super().__init__()
        self.data = bytearray()
        self.size = 0
        self.pending = []

    def sync(self):
        self.size = self.replay(self.data, len(self.pending))
        self.pending = []

    def live(self):
        data = bytearray(self.data)
        return data, self.replay(data, len(self.pending))

    def replay(self, data, sizes, block=None, keeps=None):
        """Applies the changes to the data. Returns the size, which is that after some number of the changes.

        keeps(change, index) tells whether a block has a change; without it all blocks have all changes.
        """
        size = chosen = self.size
        for number, (at, payload) in enumerate(self.pending):
            if payload is None:
                payload, size = bytes(max(0, min(len(data), size) - at)), at
            else:
                size = max(size, at + len(payload))
            if keeps is None:
                overlay(data, at, payload)
            else:
                for start in range(at // block * block, at + len(payload), block):
                    if keeps(number, start // block):
                        first, end = max(start, at), min(start + block, at + len(payload))
                        overlay(data, first, payload[first - at : end - at])
            if number + 1 == sizes:
                chosen = size
        del data[chosen:]
        return chosen

    def torn(self, random, block):
        """The content after a power cut, and what happened to the changes since the last sync."""
        if not self.pending:
            return self.data, self.size, None
        count = len(self.pending)
        fate = random.choices(list(FATES), FATES.values())[0]
        sizes = {"dropped": 0, "kept": count}.get(fate, random.choice([count, random.randint(0, count)]))
        data = bytearray(self.data)
        size = self.replay(data, sizes, block, self.blocks_kept(fate, random, block))
        return data, size, f"{fate}, {count} changes, {size} bytes"

    def blocks_kept(self, fate, random, block):
        """Returns a function that tells for a change and a block whether the disk has it."""
        count = len(self.pending)
        chosen = random.randrange(count)
        at, payload = self.pending[chosen]
        inside = random.choice([0, random.randint(0, len(payload or b""))])
        middle, before = (at + inside) // block, random.randint(0, chosen)
        changes_of_block = {}
        return {
            "dropped": lambda _change, _index: False,
            "kept": lambda _change, _index: True,
            "torn": lambda change, index: change < chosen or change == chosen and index < middle,
            "holed": lambda change, index: index != middle or change < before,
            "scattered": lambda change, index: change < changes_of_block.setdefault(index, random.randint(0, count)),
        }[fate]


NODES = {"folder": Folder, "socket": Socket, "file": File}


def overlay(data, at, payload):
    if payload:
        data.extend(bytes(max(0, at + len(payload) - len(data))))
        data[at : at + len(payload)] = payload


class Disk:
    def __init__(self):
        self.nodes = {}
        self.root = None
        self.journal = []
        self.committed = 0

    def apply(self, header, payload):
        """Applies a record of the recorder."""
        getattr(self, f"apply_{header['kind']}")(header, payload)

    def apply_begin(self, header, _):
        self.root = self.nodes[header["ino"]] = Folder()

    def apply_base(self, header, payload):
        """An entry that was there before the recording: durable."""
        node = NODES[header["type"]]()
        if isinstance(node, File):
            node.data, node.size = bytearray(payload), header["size"]
        self.nodes[header["ino"]] = node
        parent = self.nodes[header["parent"]]
        for names in (parent.live, parent.committed, parent.synced):
            names[header["name"]] = node

    def change_names(self, parent, old, new, node):
        folder = self.nodes[parent]
        change = Change(folder, old, new, node)
        change.apply(folder.live)
        folder.pending.append(change)
        self.journal.append(change)
        folder.changed_at = node.changed_at = len(self.journal)

    def apply_create(self, header, _):
        # A number of an inode is used again when its file is gone.
        node = self.nodes[header["ino"]] = NODES[header["type"]]()
        self.change_names(header["parent"], None, header["name"], node)
        node.created_at = len(self.journal)

    def apply_remove(self, header, _):
        node = self.nodes[header["parent"]].live[header["name"]]
        self.change_names(header["parent"], header["name"], None, node)

    def apply_rename(self, header, _):
        node = self.nodes[header["parent"]].live[header["name"]]
        self.change_names(header["parent"], header["name"], header["new_name"], node)

    def apply_write(self, header, payload):
        self.nodes[header["ino"]].pending.append((header["at"], payload))

    def apply_size(self, header, _):
        self.nodes[header["ino"]].pending.append((header["size"], None))

    def apply_sync(self, header, _):
        node = self.nodes[header["ino"]]
        if isinstance(node, Folder):
            for change in node.pending:
                change.apply(node.synced)
            node.pending = []
        else:
            node.sync()
        data_only = header["data_only"] and isinstance(node, File)
        self.commit(node.created_at if data_only else node.changed_at)

    def commit(self, end):
        """Makes the changes of names up to a position durable, under "ordered"."""
        for change in self.journal[self.committed : end]:
            change.apply(change.folder.committed)
        self.committed = max(self.committed, end)

    # --- writing a folder ------------------------------------------------------------------------

    def write_live(self, target):
        """Writes the folder as the processes saw it."""
        self.write_folder(self.root, target, lambda folder: folder.live, lambda file, _path: file.live())

    def cut(self, target, random, order):
        """Writes a folder that a power cut now could have left. Returns a line for each choice."""
        block = random.choice([512, 4096])
        told = [f"names {order}, blocks of {block} bytes"]
        names_of = self.ordered_names(random, told) if order == ORDERED else unordered_names(random, told)

        def content(file, path):
            data, size, fate = file.torn(random, block)
            if fate:
                told.append(f"{os.path.relpath(path, target)}: {fate}")
            return data, size

        self.write_folder(self.root, target, names_of, content)
        return told

    def ordered_names(self, random, told):
        """Returns a function that gives a folder's names after a prefix of the journal."""
        end = random.randint(self.committed, len(self.journal))
        told.append(f"{end - self.committed} of {len(self.journal) - self.committed} changes of names kept")
        kept = self.journal[self.committed : end]

        def names_of(folder):
            names = dict(folder.committed)
            for change in kept:
                if change.folder is folder:
                    change.apply(names)
            return names

        return names_of

    def write_folder(self, folder, target, names_of, content):
        os.mkdir(target)
        for name, node in names_of(folder).items():
            path = os.path.join(target, name)
            if isinstance(node, Folder):
                self.write_folder(node, path, names_of, content)
                continue
            if isinstance(node, Socket):
                os.mknod(path, stat.S_IFSOCK | 0o600)
                continue
            data, size = content(node, path)
            with open(path, "wb", buffering=0) as file:
                file.write(data)
                file.truncate(size)


def unordered_names(random, told):
    """Returns a function that gives a folder's names after a subset of its changes."""
    share = random.choice([0, 0.5, 0.9, 1])

    def names_of(folder):
        names = dict(folder.synced)
        for change in folder.pending:
            if random.random() < share:
                change.apply(names)
            else:
                told.append(f"lost: {change.old or ''} -> {change.new or ''}")
        return names

    return names_of
