module worker

go 1.24

require coord v0.0.0

replace coord => ../../../../go
