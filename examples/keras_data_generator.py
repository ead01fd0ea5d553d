"""``HDF5DataGenerator``: the ``Sequence`` over one HDF5 file that everybody writes, read ahead by native threads.

The class is imported instead of written; the rest is what stands below such a class. Any backend: ``KERAS_BACKEND=jax``,
``torch`` or ``tensorflow``. It trains on real handwritten digits, and fails below 95 % on digits that it has not seen.

``python examples/keras_data_generator.py [FOLDER]``: where the files go, by default the current folder.
"""

import os
import sys

import h5py
from digits_files import write_digits
from keras import layers
from keras.models import Sequential

from h5fast.keras import HDF5DataGenerator

os.chdir(sys.argv[1] if len(sys.argv) > 1 else ".")
for path in write_digits("."):
    with h5py.File(path, 'r') as source, h5py.File(f'data_{path.name}', 'w') as file:
        file.create_dataset('data', data=source['image'][...], chunks=(64, 8, 8), compression='lzf')
        file.create_dataset('labels', data=source['label'][...])

model = Sequential([
    layers.Flatten(),
    layers.Rescaling(1 / 16),
    layers.Dense(128, activation='relu'),
    layers.Dense(10, activation='softmax'),
])
model.compile(optimizer='adam', loss='sparse_categorical_crossentropy', metrics=['accuracy'])

generator = HDF5DataGenerator('data_train.hdf5', 32)
model.fit(generator, epochs=20, verbose=2)

loss, accuracy = model.evaluate(HDF5DataGenerator('data_test.hdf5', 32, shuffle=False), verbose=0)
print(f'Test loss: {loss} / Test accuracy: {accuracy}')

if accuracy < 0.95:
    sys.exit('the accuracy is below 95 %')
