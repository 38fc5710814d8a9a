// Renders the chart's templates with Go's template engine, which is Helm's: JSON on stdin, the text on stdout.
// Input: {"files": {name: text}, "values": {…}}. Of Helm's functions it has those that the templates use.
package main

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"sort"
	"strconv"
	"text/template"
)

func main() {
	var input struct {
		Files  map[string]string
		Values map[string]any
	}
	if err := json.NewDecoder(os.Stdin).Decode(&input); err != nil {
		log.Fatal(err)
	}
	functions := template.FuncMap{
		"toString":  func(value any) string { return fmt.Sprint(value) },
		"quote":     func(value any) string { return strconv.Quote(fmt.Sprint(value)) },
		"sha256sum": func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) },
		"default": func(other, value string) string {
			if value == "" {
				return other
			}
			return value
		},
	}
	names := []string{}
	for name := range input.Files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		parsed, err := template.New(name).Option("missingkey=error").Funcs(functions).Parse(input.Files[name])
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println("---")
		if err := parsed.Execute(os.Stdout, input.Values); err != nil {
			log.Fatal(err)
		}
	}
}
