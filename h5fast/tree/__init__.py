"""Files in a file: an HDF5 file seen as a folder.

::

    filesystem, mount               for fsspec; for the kernel, whose questions `operations` answers
    extract                         out of the file into a folder, from a folder into the file
    filetree        FileTree        what a program uses
    changing        Changes         files put, moved, removed
    entries, globbing               what it hands out; patterns of paths
    member          Member          one file of it: ranges of its bytes
    saved                           the member index, kept in the file or beside it
    catalogue       Catalogue       which members there are
    packed                          rows of the table for files that lie in one dataset
    table           Table           and where their bytes lie
    encoded                         many files in one dataset
    content                         which bytes a dataset is, as a file
    paths                           what a path means, and what names there can be
"""
