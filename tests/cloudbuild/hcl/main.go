// Command hcl prints the blocks of Terraform files as JSON, as Terraform's own parser reads them.
//
//	hcl FILE…
//
// An attribute has its expression's text, and its value if that hangs on nothing else. What is no HCL ends with exit
// code 1 and the reasons on stderr.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

type block struct {
	Type       string               `json:"type"`
	Labels     []string             `json:"labels"`
	Attributes map[string]attribute `json:"attributes"`
	Blocks     []block              `json:"blocks"`
}

type attribute struct {
	Text string `json:"text"`
	// References are what the expression hangs on, such as var.project.
	References []string        `json:"references"`
	Value      json.RawMessage `json:"value,omitempty"`
	// Items are the attributes of an object that is written out.
	Items map[string]attribute `json:"items,omitempty"`
}

func main() {
	parser := hclparse.NewParser()
	var blocks []block
	for _, path := range os.Args[1:] {
		file, faults := parser.ParseHCLFile(path)
		if faults.HasErrors() {
			for _, fault := range faults {
				fmt.Fprintln(os.Stderr, fault)
			}
			os.Exit(1)
		}
		blocks = append(blocks, body(file.Bytes, file.Body.(*hclsyntax.Body))...)
	}
	if err := json.NewEncoder(os.Stdout).Encode(blocks); err != nil {
		panic(err)
	}
}

func body(source []byte, from *hclsyntax.Body) []block {
	made := []block{}
	for _, one := range from.Blocks {
		attributes := map[string]attribute{}
		for name, given := range one.Body.Attributes {
			attributes[name] = told(source, given.Expr)
		}
		made = append(made, block{one.Type, append([]string{}, one.Labels...), attributes, body(source, one.Body)})
	}
	return made
}

func told(source []byte, expression hclsyntax.Expression) attribute {
	made := attribute{Text: string(expression.Range().SliceBytes(source)), References: []string{}}
	for _, traversal := range expression.Variables() {
		made.References = append(made.References, string(traversal.SourceRange().SliceBytes(source)))
	}
	if value, faults := expression.Value(nil); !faults.HasErrors() {
		if text, err := ctyjson.Marshal(value, value.Type()); err == nil {
			made.Value = text
		}
	}
	if object, is := expression.(*hclsyntax.ObjectConsExpr); is {
		made.Items = map[string]attribute{}
		for _, item := range object.Items {
			made.Items[hcl.ExprAsKeyword(item.KeyExpr)] = told(source, item.ValueExpr)
		}
	}
	return made
}
