"""Operations that encoders are made of, in the forms that are fast or exact on each kind of device."""
