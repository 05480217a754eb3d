// soft
