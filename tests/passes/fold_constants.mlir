// RUN: fold-constants{largest=4}
// What is computed from constants becomes one; a fake quant stays, and so does what would grow the file.
// CHECK:      %0 = "hbir.constant"{{.*}} tensor<2xf32>
// CHECK-NEXT: "qat.fake_quant"(%0)
// CHECK:      "hbir.expand"{{.*}} -> tensor<8x2xf32>
// CHECK-NOT:  hbir.add
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = () -> (tensor<2xf32>, tensor<8x2xf32>)}> ({
    %a = "hbir.constant"() <{value = BLOB(f32: 1 2)}> : () -> tensor<2xf32>
    %b = "hbir.constant"() <{value = BLOB(f32: 4)}> : () -> tensor<1xf32>
    %0 = "hbir.add"(%a, %b) : (tensor<2xf32>, tensor<1xf32>) -> tensor<2xf32>
    %1 = "qat.fake_quant"(%0) <{grid = !quant.uniform<i8:f32, 0.25>}> : (tensor<2xf32>) -> tensor<2xf32>
    %2 = "hbir.expand"(%0) <{shape = array<i64: 8, 2>}> : (tensor<2xf32>) -> tensor<8x2xf32>
    "func.return"(%1, %2) : (tensor<2xf32>, tensor<8x2xf32>) -> ()
  }) : () -> ()
}) : () -> ()
// -----
// ERROR: HB0324 at layer 'power': hbir.pow of constants has no value
"builtin.module"() ({
  "func.func"() <{sym_name = "main", function_type = () -> tensor<1xi32>}> ({
    %a = "hbir.constant"() <{value = BLOB(i32: 2)}> : () -> tensor<1xi32>
    %b = "hbir.constant"() <{value = BLOB(i32: -1)}> : () -> tensor<1xi32>
    %0 = "hbir.pow"(%a, %b) : (tensor<1xi32>, tensor<1xi32>) -> tensor<1xi32> loc("power")
    "func.return"(%0) : (tensor<1xi32>) -> ()
  }) : () -> ()
}) : () -> ()
