"""Files that nobody vouches for: a process with limits parses them, and this one believes nothing it did not check.

Layers, each of which imports only what stands below it::

    opening             open_untrusted()                a path becomes a file object's identifier and what reads behind it
    standin             build()                         a file in memory with the same objects, for h5py to describe
    claims              Claims                          what the process said of the file, checked field by field
    process             Process                         starts it, asks it, notices how it died
    child               main()                          what runs there: libhdf5, limits, answers
    kinds, messages                                     types of elements and whole answers, as they pass between the two

Only :mod:`child` calls libhdf5 with bytes of the file, and only in that process.
"""
