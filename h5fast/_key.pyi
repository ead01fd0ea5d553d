class Unhandled(Exception):
    """The key (or the dataset's shape) means something to h5py only: hand it to h5py."""
