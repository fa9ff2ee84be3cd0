"""What the paper reports, mIoU in per cent, by the names of our benchmarks and nets: its points in our figures.

Tables 2 to 4, at 20 time steps; T = 10 and T = 40 on VOC2012 from section 5.3. Of figures 3 and 13 its text gives no numbers.
"""
from __future__ import annotations

TIMESTEPS = 20
ANN = {("voc", "ann_deeplab"): 34.7, ("voc", "ann_fcn"): 32.9, ("ddd17", "ann_deeplab"): 34.1, ("ddd17", "ann_fcn"): 42.2,
       ("mnist_cifar", "ann_deeplab"): 73.56, ("mnist_cifar", "ann_fcn"): 74.43}

SPIKING = {("voc", "spiking_deeplab"): {10: 8.44, 20: 22.3, 40: 27.91}, ("voc", "spiking_fcn"): {20: 9.9}, ("ddd17", "spiking_deeplab"): {20: 33.7},
           ("ddd17", "spiking_fcn"): {20: 34.2}, ("mnist_cifar", "spiking_deeplab"): {20: 65.31}, ("mnist_cifar", "spiking_fcn"): {20: 66.20}}
