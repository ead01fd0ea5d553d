"""Folders, archives, tables and iterables become HDF5 files; files become parts.

::

    commands                        h5fast pack, h5fast partition
    partition       partition()     a source or a file, shared out to several files
    pack            pack()          what a program uses
    copies, rows                    what an HDF5 file holds, shared out to others: files in it, or rows
    tables          pack_columns()  arrays and tables: columns become fields
    estimating                      what a file will come to, before it is written
    options         Options         what is asked of a packing
    routing         Route           members of a source, on their way into one file or several
    layouts_tree, layouts  Sink     one member after the other into a file: `tree`; `stack` and `encoded`
    pool            Decoders        members decoded by several processes or threads, in order
    labels          Labels          which class a member is of, and how classes are numbered
    choosing        Choice          which members are wanted
    sources         open_source()   folders, archives and iterables as rows of members
    archives, folders               those that lie on a disk
    members         Member          one file of a source
"""
