"""Token compressors: image features in, V visual tokens out. One file each."""
