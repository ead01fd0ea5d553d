"""The ``HDF5Matrix`` tutorial on Keras 3: a small convolutional network, ``validation_split``, ``evaluate``.

Adapt the files once with h5py, then train on them without loading them: the program is what people wrote for Keras 2, but for
where ``HDF5Matrix`` comes from, and the call that lets Keras 3 take it. Any backend: ``KERAS_BACKEND=jax``, ``torch`` or
``tensorflow``. It trains on real handwritten digits, and fails below 95 % on digits that it has not seen.

``python examples/keras_hdf5matrix.py [FOLDER]``: where the files go, by default the current folder.
"""

import os
import sys

import h5py
from digits_files import write_digits
from keras.layers import Conv2D, Dense, Flatten
from keras.losses import sparse_categorical_crossentropy
from keras.models import Sequential
from keras.optimizers import Adam

import h5fast.keras
from h5fast import HDF5Matrix

h5fast.keras.install()  # fit and evaluate read an HDF5Matrix batch by batch

os.chdir(sys.argv[1] if len(sys.argv) > 1 else ".")
write_digits(".")

# Configuration
img_width, img_height, img_num_channels = 8, 8, 1

# Load the data
f = h5py.File('./train.hdf5', 'r')
input_train = f['image'][...]
label_train = f['label'][...]
f.close()
f = h5py.File('./test.hdf5', 'r')
input_test = f['image'][...]
label_test = f['label'][...]
f.close()

# Reshape data
input_train = input_train.reshape((len(input_train), img_width, img_height, img_num_channels))
input_test = input_test.reshape((len(input_test), img_width, img_height, img_num_channels))

# Parse numbers as floats
input_train = input_train.astype('float32')
input_test = input_test.astype('float32')

# Scale data
input_train = input_train / 16
input_test = input_test / 16

# Save reshaped training data
f = h5py.File('./train_reshaped.hdf5', 'w')
dataset_input = f.create_dataset('image', (len(input_train), img_width, img_height, img_num_channels))
dataset_label = f.create_dataset('label', (len(input_train),))
dataset_input[...] = input_train
dataset_label[...] = label_train
f.close()

# Save reshaped testing data
f = h5py.File('./test_reshaped.hdf5', 'w')
dataset_input = f.create_dataset('image', (len(input_test), img_width, img_height, img_num_channels))
dataset_label = f.create_dataset('label', (len(input_test),))
dataset_input[...] = input_test
dataset_label[...] = label_test
f.close()

# Model configuration
batch_size = 50
loss_function = sparse_categorical_crossentropy
no_classes = 10
no_epochs = 25
optimizer = Adam()
validation_split = 0.2
verbosity = 2

# Load the data
input_train = HDF5Matrix('./train_reshaped.hdf5', 'image')
input_test = HDF5Matrix('./test_reshaped.hdf5', 'image')
label_train = HDF5Matrix('./train_reshaped.hdf5', 'label')
label_test = HDF5Matrix('./test_reshaped.hdf5', 'label')

# Determine shape of the data
input_shape = (img_width, img_height, img_num_channels)

# Create the model
model = Sequential()
model.add(Conv2D(32, kernel_size=(3, 3), activation='relu', input_shape=input_shape))
model.add(Conv2D(64, kernel_size=(3, 3), activation='relu'))
model.add(Conv2D(128, kernel_size=(3, 3), activation='relu'))
model.add(Flatten())
model.add(Dense(128, activation='relu'))
model.add(Dense(no_classes, activation='softmax'))

# Display a model summary
model.summary()

# Compile the model
model.compile(loss=loss_function,
              optimizer=optimizer,
              metrics=['accuracy'])

# Fit data to model
history = model.fit(input_train, label_train,
            batch_size=batch_size,
            epochs=no_epochs,
            verbose=verbosity,
            validation_split=validation_split)

# Generate generalization metrics
score = model.evaluate(input_test, label_test, verbose=0)
print(f'Test loss: {score[0]} / Test accuracy: {score[1]}')

if score[1] < 0.95:
    sys.exit('the accuracy is below 95 %')
