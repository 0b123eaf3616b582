//go:build cgo && linux

package ccoord

// #include <coord.h>
import "C"

// Setting is an option of a call: a document, a text or a number.
type Setting struct {
	Name   string
	Text   string
	Number int64
	IsText bool
	// Document is in the format of the table; nil for another kind of option.
	Document []byte
}

// options makes the options of one call; to be destroyed after it. No settings give none.
func options(settings []Setting) (*C.coord_options_t, *Error) {
	if len(settings) == 0 {
		return nil, nil
	}
	var made *C.coord_options_t
	var e *C.coord_error_t
	if err := failure(C.coord_options_new(&made, &e), e); err != nil {
		return nil, err
	}
	for _, setting := range settings {
		name, nameLength := lend(setting.Name)
		var status C.coord_status_t
		if setting.Document != nil {
			document, length := lendBytes(setting.Document)
			status = C.coord_options_set_document(made, name, nameLength, document, length, &e)
		} else if setting.IsText {
			text, length := lend(setting.Text)
			status = C.coord_options_set_text(made, name, nameLength, text, length, &e)
		} else {
			status = C.coord_options_set_number(made, name, nameLength, C.int64_t(setting.Number), &e)
		}
		if err := failure(status, e); err != nil {
			C.coord_options_destroy(made)
			return nil, err
		}
	}
	return made, nil
}

// takeText copies a text, and destroys it.
func takeText(text *C.coord_text_t) string {
	defer C.coord_text_destroy(text)
	return C.GoStringN(C.coord_text_data(text), C.int(C.coord_text_length(text)))
}

// takeNames copies a list of names, and destroys it.
func takeNames(list *C.coord_name_list_t) []string {
	defer C.coord_name_list_destroy(list)
	names := make([]string, C.coord_name_list_count(list))
	for i := range names {
		names[i] = C.GoString(C.coord_name_list_at(list, C.size_t(i)))
	}
	return names
}

// labels copies labels that are read one by one.
func labels(count C.size_t, key, value func(C.size_t) *C.char) map[string]string {
	all := make(map[string]string, count)
	for i := range count {
		all[C.GoString(key(i))] = C.GoString(value(i))
	}
	return all
}
