"""``flow_hdf5``: training and validation rows of HDF5 files through an image generator, as people wrote it for Keras 2.

What ``h5py_cache`` and Keras' own ``ImageDataGenerator`` were imported for comes from h5fast. Any backend:
``KERAS_BACKEND=jax``, ``torch`` or ``tensorflow``. It trains on real handwritten digits, turned and shifted a little, and
fails below 95 % on the rows for validation, which it has not seen.

``python examples/keras_flow_hdf5.py [FOLDER]``: where the files go, by default the current folder.
"""

import os
import sys

import numpy as np
from digits_files import write_digits
from keras import layers, utils
from keras.models import Sequential

import h5fast as h5
import h5fast as h5c
from h5fast.keras import ImageDataGenerator

os.chdir(sys.argv[1] if len(sys.argv) > 1 else ".")
all_features_hdf5, all_labels_hdf5 = 'features.h5', 'labels.h5'
with h5.File(write_digits(".")[0], 'r') as source, h5.File(all_features_hdf5, 'w') as f, h5.File(all_labels_hdf5, 'w') as g:
    shape = source['image'].shape + (1,)
    f.create_dataset('data', data=source['image'][...].reshape(shape), chunks=(1, 8, 8, 1), compression='lzf')
    g.create_dataset('data', data=utils.to_categorical(source['label'][...], 10))


def preprocess_input(image):
    return image / 16


total_mem_usage, dividing_factor = min(np.prod(shape) * 4, 1024**2 * 15000), 4

# Apply_gen_transform is required if features are to be transformed and standardized. Default is False
datagen = ImageDataGenerator(preprocessing_function=preprocess_input,
                             rotation_range=10,
                             width_shift_range=0.05,
                             height_shift_range=0.05,
                             validation_split=0.2,
                             apply_gen_transform=True)
f1_trainvalidation = h5c.File(all_features_hdf5, 'r', chunk_cache_mem_size=total_mem_usage // dividing_factor)
f1_label = h5.File(all_labels_hdf5, 'r')
# Shuffle false ensures training or validation sequence wont be shuffled. They will be in order and faster to fetch
train_generator = datagen.flow_hdf5(f1_trainvalidation['data'],
                                    f1_label['data'],
                                    subset='training',
                                    shuffle=False)
validation_generator = datagen.flow_hdf5(f1_trainvalidation['data'],
                                         f1_label['data'],
                                         subset='validation',
                                         shuffle=False)

model = Sequential([
    layers.Conv2D(32, 3, activation='relu'),
    layers.Conv2D(64, 3, activation='relu'),
    layers.Flatten(),
    layers.Dense(128, activation='relu'),
    layers.Dense(10, activation='softmax'),
])
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])
model.fit(train_generator, validation_data=validation_generator, epochs=20, verbose=2)

loss, accuracy = model.evaluate(validation_generator, verbose=0)
print(f'Validation loss: {loss} / Validation accuracy: {accuracy}')

if accuracy < 0.95:
    sys.exit('the accuracy is below 95 %')
