COUNTS = {
    'unet': 346_943_496,
    'autoencoder': 55_376_873,
    'vocoder': 55_264_897,
    'projection': 1_184_256,
    'language_model': 85_842_432,
    'clap': 125_302_016,
}
