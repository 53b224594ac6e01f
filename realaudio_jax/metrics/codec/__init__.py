"""What an autoencoder or codec keeps of a sound: levels, tones, transients, the stereo image."""
