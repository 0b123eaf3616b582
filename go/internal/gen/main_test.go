package main

import (
	"os"
	"strings"
	"testing"
)

func TestWhatIsCommittedIsCurrent(t *testing.T) {
	header, err := os.ReadFile("../../../include/coord.h")
	if err != nil {
		t.Fatal(err)
	}
	want, err := render(string(header))
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../../errors_gen.go")
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != string(want) {
		t.Error("errors_gen.go is not what coord.h gives; run `go generate` in go/")
	}
}

func TestEveryCodeOfTheHeaderIsFound(t *testing.T) {
	header, err := os.ReadFile("../../../include/coord.h")
	if err != nil {
		t.Fatal(err)
	}
	for _, prefix := range []string{"COORD_E_", "COORD_LOSS_"} {
		found := len(constants(string(header), prefix))
		if defined := strings.Count(string(header), "#define "+prefix); found != defined {
			t.Errorf("%d of %d constants of %s are found", found, defined, prefix)
		}
	}
}

func TestAHeaderWithoutCodesIsAnError(t *testing.T) {
	if _, err := render("#define COORD_OK 0\n"); err == nil {
		t.Error("a header without codes was accepted")
	}
}
